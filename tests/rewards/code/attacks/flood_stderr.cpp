// expect: AC
// why: stderr is not judged, however much of it there is
#include <cstdio>
int main() {
    for (int i = 0; i < 300000; i++) fputs("debug debug debug debug\n", stderr);
    puts("3");
}
