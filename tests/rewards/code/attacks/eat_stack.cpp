// expect: MLE|RE
// why: endless recursion with a frame that is touched
#include <cstdio>
long deeper(long n) {
    volatile char frame[4096] = {};
    frame[n % 4096] = 1;
    return deeper(n + 1) + frame[0];
}
int main() { printf("%ld\n", deeper(0)); }
