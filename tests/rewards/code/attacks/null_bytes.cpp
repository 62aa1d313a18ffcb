// expect: WA
// why: a NUL is a byte like others, not the end of the output
#include <cstdio>
int main() { fwrite("3\0\n", 1, 3, stdout); }
