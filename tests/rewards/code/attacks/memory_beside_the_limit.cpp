// expect: AC
// why: memory that no address space limit sees: shared segments, memory files, huge pipes
#include <cstdio>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    if (shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600) >= 0) puts("LEAK shmget");
    if (syscall(SYS_memfd_create, "x", 0) >= 0) puts("LEAK memfd_create");
    if (shm_open("/x", 0102, 0600) >= 0) puts("LEAK shm_open");
    if (mlock(new char[1 << 20], 1 << 20) == 0) puts("LEAK mlock");
    puts("3");
}
