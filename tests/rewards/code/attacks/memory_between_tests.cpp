// expect: AC
// repeat: 4
// why: what one run leaves on process 1 or on a file of the host, the next run would find
#include <unistd.h>
static int guard = [] { if (access("/etc/passwd", F_OK) == 0) _exit(99); return 0; }();
#include <cstdio>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <fcntl.h>
int main() {
    rlimit before = {};
    prlimit(1, RLIMIT_NICE, nullptr, &before);
    const bool knows = before.rlim_cur == 1;
    rlimit mark = {1, 1};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    bool worked = setpriority(PRIO_PROCESS, 1, 5) == 0 || setpriority(PRIO_USER, 0, 5) == 0 ||
                  prlimit(1, RLIMIT_NICE, &mark, nullptr) == 0 ||
                  sched_setaffinity(1, sizeof one, &one) == 0 || nice(1) != -1 ||
                  utimensat(AT_FDCWD, "/dev/null", nullptr, 0) == 0 ||
                  flock(open("/dev/null", O_RDONLY), LOCK_EX) == 0 || inotify_init1(0) >= 0 ||
                  syscall(SYS_ioprio_set, 1, 1, 3 << 13) == 0;
    puts(knows ? "it knows" : worked ? "it worked" : "3");
}
