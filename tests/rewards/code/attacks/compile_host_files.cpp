// expect: CE
// why: the compiler must not read the host's files into its messages
// forbid: root:
#include "/etc/passwd"
#include "/etc/hostname"
int main() {}
