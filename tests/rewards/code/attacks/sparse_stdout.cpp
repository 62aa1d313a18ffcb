// expect: OLE|WA
// why: an output that is huge without being written
#include <cstdio>
#include <unistd.h>
int main() {
    if (ftruncate(1, 1l << 40) == 0) puts("LEAK ftruncate");
    lseek(1, 1l << 40, SEEK_SET);
    puts("3");
}
