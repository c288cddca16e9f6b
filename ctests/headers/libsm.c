/*
 * Prints what the functions of libsm do that sendmail's libmilter exports as well: each with every size around the
 * lengths of its strings. Nothing declares them, so they are declared here as libsm does.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

extern size_t sm_strlcpy(char *, const char *, ssize_t);
extern size_t sm_strlcat(char *, const char *, ssize_t);
extern size_t sm_strlcat2(char *, const char *, const char *, ssize_t);
extern size_t sm_strlcpyn(char *, ssize_t, int, ...);
extern const char *sm_errstring(int);

#define COUNT(array) ((int) (sizeof (array) / sizeof (array)[0]))

static char buffer[32];

static char *filled(const char *start)
{
    memset(buffer, '.', sizeof buffer - 1);
    if (start != NULL)
        strcpy(buffer, start);
    return buffer;
}

static void show(const char *function, int size, size_t length)
{
    size_t i;

    printf("%s %d: %lu ", function, size, (unsigned long) length);
    for (i = 0; i < sizeof buffer - 1; i++)
        putchar(buffer[i] == '\0' ? '0' : buffer[i]);
    putchar('\n');
}

int main(void)
{
    static const char *const strings[] = { "", "a", "bcd", "efghi" };
    int size, i, j;

    for (size = -2; size <= 14; size++) {
        show("strlcpyn of none", size, sm_strlcpyn(filled(NULL), size, 0));
        show("strlcpyn of less than none", size, sm_strlcpyn(filled(NULL), size, -1));
        show("strlcpyn of eight", size, sm_strlcpyn(filled(NULL), size, 8, "a", "b", "c", "d", "", "e", "f", "gh"));
        for (i = 0; i < COUNT(strings); i++) {
            show("strlcpy", size, sm_strlcpy(filled(NULL), strings[i], size));
            for (j = 0; j < COUNT(strings); j++) {
                show("strlcat", size, sm_strlcat(filled(strings[i]), strings[j], size));
                show("strlcat2", size, sm_strlcat2(filled(strings[i]), strings[j], strings[i], size));
                show("strlcpyn", size, sm_strlcpyn(filled(NULL), size, 3, strings[i], strings[j], strings[i]));
            }
        }
    }
    /* The numbers of the system; those from 256 on belong to functions that neither library has. */
    for (i = -1; i < 256; i++) {
        errno = 77;
        printf("%d: %s", i, sm_errstring(i));
        printf(" %d\n", errno);
    }
    return 0;
}
