// expect: WA
// why: constructors and destructors write as well
#include <cstdio>
struct Talker { Talker() { puts("3"); } ~Talker() { puts("4"); } } talker;
int main() {}
