// expect: RE|AC
// why: 32-bit system calls have other numbers: they must not pass by the filter
#include <cstdio>
int main() {
#if defined(__x86_64__)
    long id = 20;  // getpid
    asm volatile("int $0x80" : "+a"(id) : : "memory");
    if (id > 0) puts("LEAK int 0x80");
#endif
    puts("3");
}
