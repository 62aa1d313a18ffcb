// expect: MLE
// why: many processes, each below the limit, together far above
#include <cstring>
#include <unistd.h>
int main() {
    if (access("/etc/passwd", F_OK) == 0) return 99;
    for (int i = 0; i < 8; i++)
        if (fork() == 0) memset(new char[100 << 20], 1, 100 << 20), pause();
    pause();
}
