#include <bits/stdc++.h>
using namespace std;

int parent[200005];
int find(int x) { return parent[x] == x ? x : parent[x] = find(parent[x]); }

int main() {
    int n, m;
    cin >> n >> m;
    vector<array<int, 3>> edges(m);
    for (auto &e : edges) cin >> e[1] >> e[2] >> e[0];
    sort(edges.begin(), edges.end());
    iota(parent, parent + n, 0);
    long long total = 0;
    int parts = n;
    for (auto &[w, a, b] : edges)
        if (find(a) != find(b)) {
            parent[find(a)] = find(b);
            total += w;
            parts--;
        }
    cout << total << " " << parts << endl;
}
