/* main() of a fuzz target outside `make fuzz`: runs the target once over each file named on the command line. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes get a heap block of exactly their size, so that a sanitizer sees a read past the end. */
static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    long size = -1;
    if (f && fseek(f, 0, SEEK_END) == 0)
        size = ftell(f);
    if (size < 0) {
        perror(path);
        if (f)
            fclose(f);
        return -1;
    }
    rewind(f);
    uint8_t *data = malloc((size_t)size);
    size_t got = fread(data, 1, (size_t)size, f);
    fclose(f);
    if (got == (size_t)size)
        LLVMFuzzerTestOneInput(data, got);
    free(data);
    return got == (size_t)size ? 0 : -1;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        printf("%s\n", argv[i]); /* the last line before a crash names the input */
        fflush(stdout);
        failed |= replay(argv[i]) < 0;
    }
    return failed;
}
