// expect: MLE|RE|TLE
// why: many processes, each below the limit, none of which the parent waits for
#include <cstdlib>
#include <cstring>
#include <unistd.h>
int main() {
    if (access("/etc/passwd", F_OK) == 0) return 99;
    for (int i = 0; i < 64; i++)
        if (fork() == 0)
            for (;;)
                if (void *page = malloc(1 << 20)) memset(page, 1, 1 << 20);
    abort();
}
