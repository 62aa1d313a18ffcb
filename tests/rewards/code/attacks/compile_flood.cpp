// expect: CE
// why: far more to complain about than anybody reads
#define A(x) x x x x x x x x x x
#define B A(A(A(A(A(undeclared++;)))))
int main() { B }
