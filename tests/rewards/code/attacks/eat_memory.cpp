// expect: MLE
// why: allocates and touches for ever
#include <cstring>
#include <unistd.h>
int main() {
    if (access("/etc/passwd", F_OK) == 0) return 99;
    for (;;) memset(new char[1 << 20], 1, 1 << 20);
}
