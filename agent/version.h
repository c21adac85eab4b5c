/* Which carillon this is. */
#ifndef CARILLON_AGENT_VERSION_H
#define CARILLON_AGENT_VERSION_H

/* "0.1.0". Static storage, as below. */
const char *version_text(void);
/* The commit it was built from, "" when not known. */
const char *version_commit(void);
/* "carillon/0.1.0": for User-Agent and Carillon-Client. */
const char *version_product(void);

#endif
