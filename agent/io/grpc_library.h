/* The C core of gRPC, for those who call and those who serve. */
#ifndef CARILLON_IO_GRPC_LIBRARY_H
#define CARILLON_IO_GRPC_LIBRARY_H

/* Begin to use it; what it has to say goes to the log, at debug. It makes threads, which inherit the caller's signal mask. Counted;
 * any thread. */
void grpc_library_up(void);
/* The last one waits until its threads have ended. Not from one of these. */
void grpc_library_down(void);

#endif
