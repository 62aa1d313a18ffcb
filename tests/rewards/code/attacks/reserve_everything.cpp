// expect: AC
// why: a terabyte of addresses must be refused
#include <cstdio>
#include <sys/mman.h>
int main() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (mmap(nullptr, 1ul << 40, PROT_READ, flags, -1, 0) != MAP_FAILED) puts("LEAK");
    puts("3");
}
