#include <bits/stdc++.h>
using namespace std;
typedef long long ll;

int main() {
    ios::sync_with_stdio(false);
    cin.tie(nullptr);
    int n, m;
    cin >> n >> m;
    vector<vector<pair<int, ll>>> edges(n);
    for (int i = 0; i < m; i++) {
        int a, b;
        ll w;
        cin >> a >> b >> w;
        edges[a].push_back({b, w});
        edges[b].push_back({a, w});
    }
    vector<ll> best(n, LLONG_MAX);
    priority_queue<pair<ll, int>, vector<pair<ll, int>>, greater<>> open;
    best[0] = 0;
    open.emplace(0, 0);
    while (!open.empty()) {
        auto [d, at] = open.top();
        open.pop();
        if (d > best[at]) continue;
        for (auto [to, w] : edges[at])
            if (d + w < best[to]) {
                best[to] = d + w;
                open.emplace(best[to], to);
            }
    }
    for (int i = 0; i < n; i++) cout << (best[i] == LLONG_MAX ? -1 : best[i]) << " \n"[i == n - 1];
}
