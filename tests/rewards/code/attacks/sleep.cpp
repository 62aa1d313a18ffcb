// expect: TLE
// why: uses no CPU time at all
#include <unistd.h>
int main() { pause(); }
