// Process 1 of a box: runs one program again and again, each time within limits, and reports.
//
// usage: stub SOCKET PROC COPY PROGRAM ARGUMENTS...
//
// A request is one packet on SOCKET: seven numbers (see Request), with the descriptors of stdin,
// stdout and stderr, and of a fourth file, into which COPY is written when PROGRAM has ended well
// ("-": nothing). The answer is one packet (see `report`). `why` it ended is one of
//   exit     by itself
//   cpu      it used its CPU time, all processes together
//   wall     it slept or waited for longer than it may
//   memory   all processes together held too much
//   starved  it wanted to compute, but the machine did not let it: nobody's fault in the box
//   stopped  a packet, or the end of SOCKET, came in between
//   broken   PROGRAM could not be started within its limits
// PROC is a descriptor of the host's /proc (-1: there is none). A box has no /proc, and the program
// cannot reach this descriptor; without it, `starved`, `memory` and the CPU time of grandchildren
// that live are not seen.
//
// Between two runs every process is killed and reaped. When SOCKET is closed, the stub ends, and a
// box ends with its process 1.

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dirent.h>
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

// `idle_us` bounds the time in which nothing in the box ran or wanted to run; `patience_us` bounds
// everything, and only a machine without time for the program lets it come so far.
struct Request {
    long cpu_us, idle_us, patience_us, address_space, file_size, processes, open_files;
};

struct Outcome {
    const char *why = "exit";
    int status = 0;
    long cpu_us = 0, wall_us = 0, resident_kb = 0, num_others = 0;
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
    // what process 1, or a file of the host, would keep for the next run: priorities, cores, times
    // of files, locks; and with a low priority a busy machine would never let a limit strike
    SYS_setpriority, SYS_sched_setscheduler, SYS_sched_setparam, SYS_sched_setattr,
    SYS_sched_setaffinity, SYS_ioprio_set, SYS_utimensat, SYS_flock, SYS_inotify_init1,
    SYS_inotify_add_watch, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr,
    // namespaces and mounts
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
    // the machine
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
    SYS_reboot, SYS_swapon, SYS_swapoff, SYS_syslog, SYS_acct, SYS_quotactl, SYS_settimeofday,
    SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname,
    SYS_vhangup,
#if defined(__x86_64__)
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_ustat, SYS_utime, SYS_utimes,
    SYS_futimesat, SYS_inotify_init,
#endif
};

static sock_filter filter[64 + 2 * sizeof kDenied / sizeof *kDenied];
static unsigned short filter_length = 0;

static void add(int what, unsigned k, int yes = 0, int no = 0) {
    filter[filter_length++] = {(unsigned short)what, (unsigned char)yes, (unsigned char)no, k};
}

static void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset); }

static size_t argument(int i, bool is_high_half = false) {
    return offsetof(seccomp_data, args) + 8 * i + 4 * is_high_half;  // little-endian machines
}

static void deny(unsigned error) { add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error); }
static void allow() { add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW); }

// New namespaces are denied; what else a clone may do is bounded by the limits.
static void filter_clone() {
    const unsigned kNewNamespaces = 0x7e020000;  // CLONE_NEW*: NS CGROUP UTS IPC USER PID NET
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
    load(argument(0));
    add(BPF_JMP | BPF_JSET | BPF_K, kNewNamespaces, 0, 1);
    deny(EPERM);
    allow();
}

// Limits of another process, such as process 1, are not the program's to set.
static void filter_prlimit() {
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 4);
    load(argument(0));
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
    deny(EPERM);
    allow();
}

// A parent that ignores SIGCHLD has its children reaped by the kernel, which adds their CPU time to
// nobody's. So a new disposition of SIGCHLD is acknowledged and not carried out: children wait to be
// reaped, by their parent or by the stub, and are counted. (A handler of SIGCHLD is never called.)
static void filter_sigaction() {
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigaction, 0, 8);
    load(argument(0));
    add(BPF_JMP | BPF_JEQ | BPF_K, SIGCHLD, 0, 5);
    load(argument(1));
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2);
    load(argument(1, true));
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
    deny(0);
    allow();
}

static bool filter_calls() {
    load(offsetof(seccomp_data, arch));
    add(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
    add(BPF_JMP | BPF_JGE | BPF_K, kFirstYoungCall, 0, 1);
    deny(ENOSYS);
    for (int number : kDenied) {
        add(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1);
        deny(EPERM);
    }
    filter_clone();  // these three leave only by a verdict, so the number of the call stays loaded
    filter_prlimit();
    filter_sigaction();
    allow();
    sock_fprog program = {filter_length, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// ---- the program's side of the fork

static bool limit(int what, rlim_t value) {
    const rlimit both = {value, value};
    return setrlimit((__rlimit_resource)what, &both) == 0;
}

// The stack is bounded by the address space: a finite RLIMIT_STACK would also be the size of every
// thread's stack. RLIMIT_CPU stands behind the exact limit that `watch` keeps. RLIMIT_CORE of 1, not
// 0, also keeps the kernel from piping a dump to a handler of the host. The stub is one of the
// processes that the kernel counts in a box. Outside of a box it would count every process of the
// user, so there they are not limited.
static bool set_limits(const Request &r) {
    const bool is_in_box = getppid() == 1;
    return limit(RLIMIT_CORE, 1) && limit(RLIMIT_CPU, r.cpu_us / 1000000 + 2) &&
           limit(RLIMIT_FSIZE, r.file_size) && limit(RLIMIT_NOFILE, r.open_files) &&
           limit(RLIMIT_MSGQUEUE, 0) && limit(RLIMIT_MEMLOCK, 0) &&
           limit(RLIMIT_SIGPENDING, 256) && limit(RLIMIT_AS, r.address_space) &&
           (!is_in_box || limit(RLIMIT_NPROC, r.processes + 1));
}

// Descriptors above stderr do not reach the program. Linux before 5.11, and containers that know no
// close_range, need one call each; the stub's own are far below 4,096.
static void keep_only_streams() {
    const int kCloseRange = 436, kOnExec = 4;
    if (syscall(kCloseRange, 3u, ~0u, kOnExec) == 0) return;
    for (int file = 3; file < 4096; file++) fcntl(file, F_SETFD, FD_CLOEXEC);
}

[[noreturn]] static void become(char **program, const Request &request, const int *files,
                                int alarm) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    for (int sig = 1; sig < 65; sig++) signal(sig, SIG_DFL);
    setsid();
    limit(RLIMIT_STACK, RLIM_INFINITY);  // where the hard limit is lower, it stays as it is
    bool is_ready = dup2(files[0], 0) == 0 && dup2(files[1], 1) == 1 && dup2(files[2], 2) == 2;
    keep_only_streams();
    is_ready = is_ready && set_limits(request) && filter_calls();
    if (is_ready) execv(program[0], program);
    if (!is_ready) (void)!write(alarm, "x", 1);
    _exit(127);
}

// ---- the stub's side

static int proc = -1;    // the host's /proc
static char myself[16];  // this process's number there

static long microseconds(clockid_t clock) {
    timespec t;
    return clock_gettime(clock, &t) ? 0 : t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static long cpu_of(pid_t child) {
    clockid_t clock;
    return clock_getcpuclockid(child, &clock) ? 0 : microseconds(clock);
}

// What all processes below the stub do at one moment; `delay_us` is the time that their threads have
// waited for a processor.
struct Tree {
    long resident_bytes = 0, cpu_us = 0, delay_us = 0, major_faults = 0;
    bool wants_cpu = false;
};

// A file below /proc as a text; empty where the process has ended.
static const char *text_of(const char *process, const char *rest, const char *last = "") {
    static char text[4096];
    char path[320];
    snprintf(path, sizeof path, "%s/%s%s", process, rest, last);
    text[0] = 0;
    const int file = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return text;
    const ssize_t length = read(file, text, sizeof text - 1);
    text[length > 0 ? length : 0] = 0;
    close(file);
    return text;
}

// From `PID/stat`: its state, and what it and the children that it has reaped have used.
static void add_usage(const char *process, Tree &tree) {
    const char *fields = strrchr(text_of(process, "stat"), ')');  // a name may hold brackets
    long major = 0, by_children = 0, ticks[4] = {};
    if (!fields ||
        sscanf(fields, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %ld %ld %ld %ld %ld %ld", &major,
               &by_children, ticks, ticks + 1, ticks + 2, ticks + 3) != 6)
        return;
    tree.major_faults += major + by_children;
    static const long us_per_tick = 1000000 / sysconf(_SC_CLK_TCK);
    for (long count : ticks) tree.cpu_us += count * us_per_tick;
    long pages = 0;
    if (sscanf(text_of(process, "statm"), "%*d %ld", &pages) == 1)
        tree.resident_bytes += pages * sysconf(_SC_PAGESIZE);
}

static void add_process(const char *process, Tree &tree, int depth);

static void add_children(const char *process, const char *thread, Tree &tree, int depth) {
    char where[300], children[4096], *rest = nullptr;
    snprintf(where, sizeof where, "task/%s/", thread);
    strcpy(children, text_of(process, where, "children"));
    for (char *child = strtok_r(children, " ", &rest); child; child = strtok_r(nullptr, " ", &rest))
        add_process(child, tree, depth);
}

static void add_thread(const char *process, const char *thread, Tree &tree) {
    char where[300];
    snprintf(where, sizeof where, "task/%s/", thread);
    long delay_ns = 0;
    if (sscanf(text_of(process, where, "schedstat"), "%*d %ld", &delay_ns) == 1)
        tree.delay_us += delay_ns / 1000;
    const char *fields = strrchr(text_of(process, where, "stat"), ')');
    if (fields && !strncmp(fields, ") R", 3)) tree.wants_cpu = true;
}

// A process and all below it. Shared pages count for each; no honest tree is 32 levels deep.
static void add_process(const char *process, Tree &tree, int depth) {
    if (depth > 32) return;
    add_usage(process, tree);
    char path[32];
    snprintf(path, sizeof path, "%.16s/task", process);
    const int folder = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *threads = folder < 0 ? nullptr : fdopendir(folder);
    if (!threads) return;
    while (const dirent *thread = readdir(threads)) {
        if (thread->d_name[0] == '.') continue;
        add_thread(process, thread->d_name, tree);
        add_children(process, thread->d_name, tree, depth + 1);
    }
    closedir(threads);
}

static Tree look() {
    Tree tree;
    if (proc >= 0) add_children(myself, myself, tree, 0);
    return tree;
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

static void pause_for(long us) {
    const timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, nullptr);
}

// Wakes when a child ends. A signal that a program sent is followed by a pause, so that a storm of
// them does not keep the stub busy.
static void nap(long us) {
    static const long kShortest = 200;
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    const timespec at_most = {us / 1000000, us % 1000000 * 1000};
    siginfo_t about;
    if (sigtimedwait(&ended, &about, &at_most) > 0 && about.si_code <= 0) pause_for(kShortest);
}

// A packet while a program runs means that it is to be stopped; so does the end of the socket.
static bool is_to_stop(int socket) {
    char byte;
    return recv(socket, &byte, 1, MSG_DONTWAIT) >= 0;
}

// Since when a program runs, and for how long nothing of it ran or wanted to.
struct Clock {
    long start = microseconds(CLOCK_MONOTONIC), last = start, idle_us = 0;
    Tree seen;

    // A stretch of time counts as idle so far as nothing computed or waited for a processor in it.
    // Where a thread waits at this moment, its wait is not yet in the kernel's sum; and a process
    // that waits for its own pages from a disk is held up by the machine.
    void advance(const Tree &tree, long now) {
        const long delay = tree.delay_us - seen.delay_us;  // less than before where threads ended
        const long busy = tree.cpu_us - seen.cpu_us + (delay > 0 ? delay : 0);
        const bool is_held_up = tree.wants_cpu || tree.major_faults > seen.major_faults;
        if (!is_held_up && now - last > busy) idle_us += now - last - busy;
        last = now;
        seen = tree;
    }
};

// Why the program is to be killed now, or null.
static const char *limit_met(pid_t child, const Request &request, const Outcome &outcome,
                             Clock &clock) {
    const long kBetweenLooks = 50000;
    const long now = clock.start + outcome.wall_us, exact = outcome.cpu_us + cpu_of(child);
    if (exact >= request.cpu_us) return "cpu";
    if (now - clock.last >= kBetweenLooks) {
        Tree tree = look();
        tree.cpu_us += outcome.cpu_us;
        if (tree.cpu_us < exact) tree.cpu_us = exact;  // where there is no /proc
        clock.advance(tree, now);
        if (tree.cpu_us >= request.cpu_us) return "cpu";
        if (tree.resident_bytes > request.address_space) return "memory";
    }
    if (clock.idle_us >= request.idle_us) return "wall";
    return outcome.wall_us >= request.patience_us ? "starved" : nullptr;
}

static void watch(pid_t child, int socket, const Request &request, Outcome &outcome) {
    Clock clock;
    for (;;) {
        pid_t ended;
        while ((ended = reap(child, outcome)) > 0 && ended != child) {}
        outcome.wall_us = microseconds(CLOCK_MONOTONIC) - clock.start;
        if (ended != 0) break;
        const char *why = limit_met(child, request, outcome, clock);
        if (!why && is_to_stop(socket)) why = "stopped";
        if (why) {
            outcome.why = why;
            break;
        }
        const long left = request.cpu_us - outcome.cpu_us - cpu_of(child);
        nap(left > 25000 ? 25000 : left < 1000 ? 1000 : left);
    }
    do kill_all();
    while (reap(child, outcome) >= 0 && (pause_for(200), true));
}

// How many processes and threads were there besides the program: the numbers in between are theirs.
static long count_others(pid_t child) {
    const pid_t next = vfork();
    if (next == 0) _exit(0);
    if (next > 0) waitpid(next, nullptr, 0);
    return next - child - 1;
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
    if (getpid() == 1) outcome.num_others = count_others(child);
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
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof files)];
    iovec part = {text, sizeof text - 1};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0) exit(0);
    const cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_len != CMSG_LEN(sizeof files)) exit(2);
    memcpy(files, CMSG_DATA(header), sizeof files);
    Request r;
    if (sscanf(text, "%ld %ld %ld %ld %ld %ld %ld", &r.cpu_us, &r.idle_us, &r.patience_us,
               &r.address_space, &r.file_size, &r.processes, &r.open_files) != 7)
        exit(2);
    return r;
}

static bool report(int socket, const Outcome &o) {
    char text[160];
    const int length = snprintf(text, sizeof text, "%s %d %ld %ld %ld %ld", o.why, o.status,
                                o.cpu_us, o.wall_us, o.resident_kb, o.num_others);
    return send(socket, text, length, MSG_NOSIGNAL) == length;
}

// What is inherited from the judge must not matter: an ignored SIGCHLD would hide how programs end.
static void prepare(int socket) {
    signal(SIGCHLD, SIG_DFL);
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ended, nullptr);
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (getpid() == 1) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (proc >= 0) fcntl(proc, F_SETFD, FD_CLOEXEC);
    const ssize_t length = proc < 0 ? -1 : readlinkat(proc, "self", myself, sizeof myself - 1);
    if (length <= 0) proc = -1;
}

int main(int count, char **arguments) {
    if (count < 5) return 2;
    const int socket = atoi(arguments[1]);
    const char *product = arguments[3];
    proc = atoi(arguments[2]);
    prepare(socket);
    for (int files[4];;) {
        const Request request = receive(socket, files);
        const Outcome outcome = run(arguments + 4, socket, request, files);
        if (strcmp(product, "-") && outcome.status == 0 && !strcmp(outcome.why, "exit"))
            copy(product, files[3]);
        for (int file : files) close(file);
        if (!report(socket, outcome)) return 2;
    }
}
