// expect: AC
// why: 20 MB of input of which one line is read: no deadlock, no SIGPIPE
// stdin: big
#include <cstdio>
int main() { long a, b; if (scanf("%ld%ld", &a, &b) == 2) printf("%ld\n", a + b); }
