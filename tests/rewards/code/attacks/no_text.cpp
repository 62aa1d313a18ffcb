// expect: WA
// why: bytes that are no text in any encoding
#include <cstdio>
int main() { for (int i = 0; i < 256; i++) putchar(i); }
