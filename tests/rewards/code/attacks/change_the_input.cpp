// expect: AC
// why: the input of a test must stay as it is, for the next run as well
// repeat: 2
#include <cstdio>
#include <sys/mman.h>
#include <unistd.h>
int main() {
    if (write(0, "9 9", 3) > 0 || ftruncate(0, 0) == 0) puts("LEAK write");
    if (mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, 0, 0) != MAP_FAILED) puts("LEAK mmap");
    long a, b;
    if (scanf("%ld%ld", &a, &b) == 2) printf("%ld\n", a + b);
}
