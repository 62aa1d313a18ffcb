// Process 1 of a box: runs one program again and again, each time within limits, and reports.
//
// usage: stub SOCKET COPY PROGRAM ARGUMENTS...
//
// A request is one packet on SOCKET: six numbers (see Request), with the descriptors of stdin,
// stdout and stderr, and of a fourth file, into which COPY is written when PROGRAM has ended well
// ("-": nothing). The answer is one packet: why the run ended (exit, cpu, wall, stopped by a packet
// in between, or broken: PROGRAM could not be started within its limits), its wait status, CPU and wall microseconds, and the
// largest resident set in KB. Between two runs every process is killed and reaped, so nothing of
// one run reaches the next. When SOCKET is closed, the stub ends, and a box ends with its process 1.

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <initializer_list>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct Request {
    long cpu_us, wall_us, address_space, file_size, processes, open_files;
};

struct Outcome {
    const char *why = "exit";
    int status = 0;
    long cpu_us = 0, wall_us = 0, resident_kb = 0;
};

// ---- what a program may not ask of the kernel

#if defined(__x86_64__)
static const unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
static const unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "The judge's system call filter knows x86-64 and aarch64 only."
#endif

// From this number on a call is younger than Linux 5.1 (io_uring, clone3, the new mount calls,
// pidfd_getfd, memfd_secret, ...), has the same number everywhere, and does not exist in a box.
// The x32 calls of x86-64 lie above it as well.
static const int kFirstYoungCall = 424;

static const int kDenied[] = {
    // the network (a network namespace leaves AF_VSOCK), and memory outside RLIMIT_AS
    SYS_socket, SYS_socketpair, SYS_shmget, SYS_shmat, SYS_shmctl, SYS_semget, SYS_msgget,
    SYS_mq_open, SYS_memfd_create,
    // other processes, and big or young parts of the kernel
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_bpf,
    SYS_perf_event_open, SYS_userfaultfd, SYS_io_setup, SYS_add_key, SYS_request_key, SYS_keyctl,
    SYS_fanotify_init, SYS_lookup_dcookie, SYS_name_to_handle_at, SYS_open_by_handle_at,
    SYS_move_pages, SYS_migrate_pages, SYS_mbind, SYS_set_mempolicy, SYS_personality,
    // namespaces and mounts
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
    // the machine
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
    SYS_reboot, SYS_swapon, SYS_swapoff, SYS_syslog, SYS_acct, SYS_quotactl, SYS_settimeofday,
    SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname,
    SYS_vhangup,
#if defined(__x86_64__)
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_ustat,
#endif
};

static bool filter_calls() {
    const unsigned kNewNamespaces = 0x7e020000;  // CLONE_NEW*: NS CGROUP UTS IPC USER PID NET
    const unsigned kErrno = SECCOMP_RET_ERRNO;
    static sock_filter code[16 + 2 * sizeof kDenied / sizeof *kDenied];
    unsigned short n = 0;
    auto add = [&](int what, unsigned k, int yes = 0, int no = 0) {
        code[n++] = {(unsigned short)what, (unsigned char)yes, (unsigned char)no, k};
    };
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch));
    add(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
    add(BPF_JMP | BPF_JGE | BPF_K, kFirstYoungCall, 0, 1);
    add(BPF_RET | BPF_K, kErrno | ENOSYS);
    for (int number : kDenied) {
        add(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1);
        add(BPF_RET | BPF_K, kErrno | EPERM);
    }
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args));  // the flags, low half
    add(BPF_JMP | BPF_JSET | BPF_K, kNewNamespaces, 0, 1);
    add(BPF_RET | BPF_K, kErrno | EPERM);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    sock_fprog filter = {n, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// ---- the program's side of the fork

static bool limit(int what, rlim_t value) {
    const rlimit both = {value, value};
    return setrlimit((__rlimit_resource)what, &both) == 0;
}

// The stack is bounded by the address space: a finite RLIMIT_STACK would also be the size of every
// thread's stack. RLIMIT_CPU stands behind the exact limit that `watch` keeps. Outside of a box
// the kernel would count every process of the user, so there processes are not limited.
static bool set_limits(const Request &r) {
    const bool is_in_box = getppid() == 1;
    return limit(RLIMIT_CORE, 0) && limit(RLIMIT_CPU, r.cpu_us / 1000000 + 2) &&
           limit(RLIMIT_FSIZE, r.file_size) && limit(RLIMIT_NOFILE, r.open_files) &&
           limit(RLIMIT_MSGQUEUE, 0) && limit(RLIMIT_MEMLOCK, 0) &&
           limit(RLIMIT_SIGPENDING, 256) && limit(RLIMIT_AS, r.address_space) &&
           (!is_in_box || limit(RLIMIT_NPROC, r.processes));
}

[[noreturn]] static void become(char **program, const Request &request, const int *files,
                                int alarm) {
    const int kCloseRange = 436, kOnExec = 4;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    for (int sig : {SIGPIPE, SIGXFSZ, SIGCHLD}) signal(sig, SIG_DFL);
    setsid();
    limit(RLIMIT_STACK, RLIM_INFINITY);  // where the hard limit is lower, it stays as it is
    const bool is_ready = dup2(files[0], 0) == 0 && dup2(files[1], 1) == 1 &&
                          dup2(files[2], 2) == 2 &&
                          syscall(kCloseRange, 3u, ~0u, kOnExec) == 0 && set_limits(request) &&
                          filter_calls();
    if (is_ready) execv(program[0], program);
    if (!is_ready) (void)!write(alarm, "x", 1);
    _exit(127);
}

// ---- the stub's side

static long microseconds(clockid_t clock) {
    timespec t;
    return clock_gettime(clock, &t) ? 0 : t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static long cpu_of(pid_t child) {
    clockid_t clock;
    return clock_getcpuclockid(child, &clock) ? 0 : microseconds(clock);
}

// One ended process, if there is one. Returns its id, 0 (none has ended), or -1 (none is left).
static pid_t reap(pid_t child, Outcome &outcome) {
    int status;
    rusage used;
    const pid_t ended = wait4(-1, &status, WNOHANG | __WALL, &used);
    if (ended <= 0) return ended;
    outcome.cpu_us += (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000L +
                      used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    if (used.ru_maxrss > outcome.resident_kb) outcome.resident_kb = used.ru_maxrss;
    if (ended == child) outcome.status = status;
    return ended;
}

// As process 1 of its own namespace the stub may kill everybody; without one, its own children,
// to which orphans are added because it is their subreaper.
static void kill_all() {
    if (getpid() == 1) {
        kill(-1, SIGKILL);
        return;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    if (FILE *children = fopen(path, "r")) {
        for (int pid; fscanf(children, "%d", &pid) == 1;) kill(pid, SIGKILL);
        fclose(children);
    }
}

static void nap(long us) {
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    const timespec at_most = {0, us * 1000};
    sigtimedwait(&ended, nullptr, &at_most);
}

// A packet while a program runs means that it is to be stopped; so does the end of the socket.
static bool is_to_stop(int socket) {
    char byte;
    return recv(socket, &byte, 1, MSG_DONTWAIT) >= 0;
}

static void watch(pid_t child, int socket, const Request &request, Outcome &outcome) {
    const long start = microseconds(CLOCK_MONOTONIC);
    for (bool is_over = false; !is_over;) {
        pid_t ended;
        while ((ended = reap(child, outcome)) > 0 && ended != child) {}
        outcome.wall_us = microseconds(CLOCK_MONOTONIC) - start;
        if (ended != 0) break;
        const long cpu_left = request.cpu_us - outcome.cpu_us - cpu_of(child);
        const long wall_left = request.wall_us - outcome.wall_us;
        const char *why = cpu_left <= 0 ? "cpu" : wall_left <= 0 ? "wall" : "stopped";
        is_over = cpu_left <= 0 || wall_left <= 0 || is_to_stop(socket);
        if (is_over) outcome.why = why;
        const long left = cpu_left < wall_left ? cpu_left : wall_left;
        if (!is_over) nap(left > 25000 ? 25000 : left < 1000 ? 1000 : left);
    }
    do kill_all();
    while (reap(child, outcome) >= 0 && (nap(200), true));
}

static Outcome run(char **program, int socket, const Request &request, const int *files) {
    Outcome outcome;
    int alarm[2];
    if (pipe2(alarm, O_CLOEXEC | O_NONBLOCK)) return {"broken"};
    const pid_t child = fork();
    if (child == 0) become(program, request, files, alarm[1]);
    if (child > 0) watch(child, socket, request, outcome);
    char sign;
    if (child < 0 || read(alarm[0], &sign, 1) == 1) outcome.why = "broken";
    close(alarm[0]);
    close(alarm[1]);
    return outcome;
}

static void copy(const char *path, int to) {
    const int from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (from < 0) return;
    while (sendfile(to, from, nullptr, 1 << 20) > 0) {}
    close(from);
}

// The next request with its descriptors, or none: the judge is gone, and so is the box.
static Request receive(int socket, int (&files)[4]) {
    char text[256] = {};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof files)];
    iovec part = {text, sizeof text - 1};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0) exit(0);
    const cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_len != CMSG_LEN(sizeof files)) exit(2);
    memcpy(files, CMSG_DATA(header), sizeof files);
    Request r;
    if (sscanf(text, "%ld %ld %ld %ld %ld %ld", &r.cpu_us, &r.wall_us, &r.address_space,
               &r.file_size, &r.processes, &r.open_files) != 6)
        exit(2);
    return r;
}

int main(int count, char **arguments) {
    if (count < 4) return 2;
    const int socket = atoi(arguments[1]);
    const char *product = arguments[2];
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ended, nullptr);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (int files[4];;) {
        const Request request = receive(socket, files);
        const Outcome o = run(arguments + 3, socket, request, files);
        if (strcmp(product, "-") && o.status == 0 && !strcmp(o.why, "exit"))
            copy(product, files[3]);
        for (int file : files) close(file);
        char report[128];
        const int length = snprintf(report, sizeof report, "%s %d %ld %ld %ld", o.why, o.status,
                                    o.cpu_us, o.wall_us, o.resident_kb);
        if (send(socket, report, length, MSG_NOSIGNAL) != length) return 2;
    }
}
