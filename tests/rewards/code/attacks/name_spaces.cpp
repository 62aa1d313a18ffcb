// expect: AC
// why: no name space and no mount from inside; that is how walls are climbed
#include <cstdio>
#include <initializer_list>
#include <sched.h>
#include <csignal>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    for (int kind : {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC}) {
        if (unshare(kind) == 0) puts("LEAK unshare");
        long child = syscall(SYS_clone, kind | SIGCHLD, 0, 0, 0, 0);
        if (child == 0) _exit(0);
        if (child > 0) puts("LEAK clone");
    }
    struct { unsigned long flags, rest[10]; } arguments = {CLONE_NEWUSER, {}};
    if (syscall(435, &arguments, 64) >= 0) puts("LEAK clone3");
    if (mount("x", "/tmp", "tmpfs", 0, nullptr) == 0) puts("LEAK mount");
    if (mount("x", "/tmp", "proc", 0, nullptr) == 0) puts("LEAK proc");
    if (chroot("/tmp") == 0) puts("LEAK chroot");
    puts("3");
}
