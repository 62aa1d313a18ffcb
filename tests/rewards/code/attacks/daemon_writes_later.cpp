// expect: WA
// why: what a daemon writes after the program's end is not its output
#include <unistd.h>
int main() {
    if (fork() == 0) {
        setsid();
        usleep(300000);
        (void)!write(1, "3\n", 2);
        _exit(0);
    }
}
