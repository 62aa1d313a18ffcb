// expect: AC
// why: a second test must find nothing of the first: no process, no file
// repeat: 3
#include <cstdio>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>
int main() {
    if (access("/tmp/mark", F_OK) == 0) return puts("LEAK file"), 0;
    if (open("/tmp/mark", O_CREAT | O_WRONLY, 0600) >= 0) puts("LEAK writable /tmp");
    int others = 0;
    for (int pid = 2; pid < 400; pid++) others += pid != getpid() && kill(pid, 0) == 0;
    if (others) printf("LEAK %d processes\n", others);
    if (fork() == 0) pause();
    puts("3");
}
