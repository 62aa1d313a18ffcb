// expect: RE
// why: the right output does not excuse an exit code
#include <cstdio>
int main() { puts("3"); return 42; }
