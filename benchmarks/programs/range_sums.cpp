#include <iostream>
#include <vector>
using namespace std;

struct Fenwick {
    vector<long long> tree;
    explicit Fenwick(int n) : tree(n + 1) {}
    void add(int i, long long x) {
        for (i++; i < (int)tree.size(); i += i & -i) tree[i] += x;
    }
    long long sum(int i) const {
        long long s = 0;
        for (; i > 0; i -= i & -i) s += tree[i];
        return s;
    }
};

int main() {
    ios_base::sync_with_stdio(false);
    int n, q;
    cin >> n >> q;
    Fenwick sums(n);
    while (q--) {
        char kind;
        long long a, b;
        cin >> kind >> a >> b;
        if (kind == '+') sums.add(a, b);
        else cout << sums.sum(b) - sums.sum(a) << '\n';
    }
}
