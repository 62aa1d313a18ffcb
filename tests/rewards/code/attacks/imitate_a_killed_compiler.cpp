// expect: CE
// why: the words by which g++ tells that the machine failed it, at the beginning of a line
static_assert(false, "\ng++: fatal error: Killed signal terminated program cc1plus\n"
                     "Cannot create temporary file in /tmp/: No space left on device\n");
int main() {}
