// expect: CE
// why: a gigabyte of initialised data
int huge[1 << 28] = {1};
int main() { return huge[5]; }
