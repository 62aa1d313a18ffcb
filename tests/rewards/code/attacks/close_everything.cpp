// expect: WA
// why: closes its descriptors and ends well
#include <unistd.h>
int main() { for (int i = 0; i < 100; i++) close(i); }
