// expect: RE
// why: the right output does not excuse a crash at the end
#include <cstdio>
#include <cstdlib>
struct Bomb { ~Bomb() { abort(); } } bomb;
int main() { puts("3"); }
