// expect: AC
// why: the parts of the kernel with a history are not there
#include <cerrno>
#include <cstdio>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    const int calls[] = {SYS_ptrace, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl,
                         SYS_add_key, SYS_process_vm_writev, SYS_init_module, SYS_kexec_load,
                         SYS_open_by_handle_at, SYS_personality, SYS_reboot, SYS_swapon, SYS_setns};
    for (int call : calls) {
        errno = 0;
        if (syscall(call, 0, 0, 0, 0, 0, 0) >= 0 || errno != EPERM) printf("LEAK call %d\n", call);
    }
    for (int call = 424; call < 470; call++) {
        errno = 0;
        if (syscall(call, 0, 0, 0, 0, 0, 0) >= 0 || errno != ENOSYS) printf("LEAK %d\n", call);
    }
    puts("3");
}
