// expect: CE
// why: the assembler must not read the host's files into the program
__asm__(".data\n.incbin \"/etc/passwd\"\n.text");
int main() {}
