// expect: CE
// why: no C++
int main() { return "3" }
