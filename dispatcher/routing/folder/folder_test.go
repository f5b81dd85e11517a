package folder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// follower runs a Source over real files and keeps what it delivers.
type follower struct {
	t      *testing.T
	dir    string
	source *Source
	stop   func()

	mu     sync.Mutex
	tables []*routing.Table
	log    bytes.Buffer
}

// follow starts a source that polls, on the clock of the bubble it is called in.
func follow(t *testing.T, dir string, lastGood *routing.LastGood) *follower {
	t.Helper()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, dir: dir}
	log := funcr.New(func(_, args string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		fmt.Fprintln(&f.log, args)
	}, funcr.Options{})
	f.source = New(Config{Dir: dir, Policy: routing.Policy{Catalog: catalog}, LastGood: lastGood, Log: log})
	f.source.notices = nil
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.source.Run(ctx, f.deliver) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if strings.Contains(f.logged(), canary) {
			t.Errorf("the log shows a secret:\n%s", f.logged())
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *follower) deliver(table *routing.Table) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables = append(f.tables, table)
}

// logged is the log so far.
func (f *follower) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// table returns the newest table, a second later: by then every change must have taken effect.
func (f *follower) table() *routing.Table {
	f.t.Helper()
	pass(time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tables) == 0 {
		f.t.Fatalf("no table was delivered; log:\n%s", f.log.String())
	}
	return f.tables[len(f.tables)-1]
}

func (f *follower) delivered() []*routing.Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tables)
}

func (f *follower) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) remove(name string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}

// wantRoute is what a test looks at of one route; no URL means that its deliveries wait.
type wantRoute struct {
	name, url string
	matches   event.Type
}

func (f *follower) want(table *routing.Table, want ...wantRoute) {
	f.t.Helper()
	if table.Len() != len(want) {
		f.t.Errorf("%d routes, want %d; problems %+v", table.Len(), len(want), table.Problems)
	}
	for _, w := range want {
		namespace, name, _ := strings.Cut(w.name, "/")
		i := slices.IndexFunc(slices.Collect(table.All()), func(r *routing.Route) bool { return r.Namespace == namespace && r.Name == name })
		if i < 0 {
			f.t.Errorf("no route %s; problems %+v", w.name, table.Problems)
			continue
		}
		route, url := slices.Collect(table.All())[i], ""
		if route.Endpoint.Target != nil {
			url = route.Endpoint.Target.URL
		}
		if url != w.url {
			f.t.Errorf("route %s goes to %q, want %q", w.name, url, w.url)
		}
		if !slices.Contains(table.Match(namespace, w.matches, nil), route.Subscription) {
			f.t.Errorf("route %s does not match %s", w.name, w.matches)
		}
	}
}

func (f *follower) wantProblems(table *routing.Table, want ...string) {
	f.t.Helper()
	var got []string
	for _, p := range table.Problems {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s", p.Source, p.Reason)))
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("problems %q, want %q: %+v", got, want, table.Problems)
	}
}

var billing = wantRoute{"clinic-a/billing-sync", "https://billing.example.com/hooks", "encounter.updated"}

func TestFolderIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		f.want(f.table())
		f.write("key.yaml", secretYAML)
		f.write("billing.yaml", subscriptionYAML)
		f.want(f.table(), billing)

		f.write("billing.yaml", strings.Replace(subscriptionYAML, "/hooks", "/v2", 1))
		moved := wantRoute{billing.name, "https://billing.example.com/v2", "encounter.updated"}
		f.want(f.table(), moved)

		f.write("other.json", `{"apiVersion":"v1","kind":"List","items":[`+
			`{"apiVersion":"webhooks.clinikapi.com/v1alpha1","kind":"WebhookSubscription","metadata":{"name":"sms","uid":"u1","generation":7},`+
			`"spec":{"url":"https://sms.example.com/","events":["*"],"signing":{"secretRef":{"name":"k","key":"k"}}}},`+
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"k"},"data":{"k":"YzRuNHJ5LWtleS1vZi0yNC1ieXRlcy1vci1tb3Jl"}}]}`)
		sms := wantRoute{"default/sms", "https://sms.example.com/", "patient.created"}
		table := f.table()
		f.want(table, moved, sms)
		if route, ok := table.Get(event.NewSubscriptionKey("u1")); !ok || route.Generation != 7 || route.Identity != "u1" {
			t.Errorf("got %+v; want uid and generation as they are written", route)
		}
		if route, ok := table.Get(event.NewSubscriptionKey("clinic-a/billing-sync")); !ok || route.Generation <= 0 {
			t.Errorf("got %+v; want a generation made of the spec", route)
		}

		before := table
		f.write(".hidden.yaml", "broken: [")
		f.write("notes.txt", "broken: [")
		if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
			t.Fatal(err)
		}
		if after := f.table(); after != before {
			t.Errorf("a dot-file, another file or a subfolder made another table: %+v", after.Problems)
		}

		f.remove("other.json")
		after := f.table()
		f.want(after, moved)
		if after.Revision <= before.Revision {
			t.Errorf("revision %d follows %d", after.Revision, before.Revision)
		}
	})
}

func TestFolderKeepsUnchangedRoutes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		f.write("a.yaml", subscriptionYAML+"---\n"+secretYAML)
		key := event.NewSubscriptionKey("clinic-a/billing-sync")
		before, _ := f.table().Get(key)
		f.write("b.yaml", strings.ReplaceAll(subscriptionYAML, "billing-sync", "second"))
		table := f.table()
		if after, _ := table.Get(key); table.Len() != 2 || after != before {
			t.Error("a subscription that did not change has another route")
		}
	})
}

func TestFolderHoldsWhatIsNotAccepted(t *testing.T) {
	t.Parallel()
	waits := wantRoute{billing.name, "", billing.matches}
	for name, tc := range map[string]struct {
		edit        func(f *follower)
		wantProblem string
	}{
		"Secret removed": {func(f *follower) { f.remove("key.yaml") }, "billing.yaml SecretNotFound"},
		"key missing":    {func(f *follower) { f.write("key.yaml", strings.Replace(secretYAML, "current", "other", 1)) }, "billing.yaml SecretKeyMissing"},
		"key empty": {func(f *follower) {
			f.write("key.yaml", strings.Replace(secretYAML, "c4n4ry-key-of-24-bytes-or-more", `""`, 1))
		}, "billing.yaml SecretKeyInvalid"},
		"http": {func(f *follower) { f.write("billing.yaml", strings.Replace(subscriptionYAML, "https", "http", 1)) }, "billing.yaml HTTPNotAllowed"},
		"unknown resource": {func(f *follower) {
			f.write("billing.yaml", strings.Replace(subscriptionYAML, "encounter", "invoice", 1))
		}, "billing.yaml UnknownResource"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, dir, nil)
				f.write("key.yaml", secretYAML)
				f.write("billing.yaml", subscriptionYAML)
				f.want(f.table(), billing)
				tc.edit(f)
				table := f.table()
				f.want(table, waits)
				f.wantProblems(table, tc.wantProblem)
				f.write("key.yaml", secretYAML)
				f.write("billing.yaml", subscriptionYAML)
				table = f.table()
				f.want(table, billing)
				f.wantProblems(table)
				if log := f.logged(); !strings.Contains(log, "Manifest not usable") || !strings.Contains(log, "Manifest's problem gone") {
					t.Errorf("the log tells it not:\n%s", log)
				}
			})
		})
	}
}

func TestFolderKeepsTheLastGoodContentOfAFile(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no YAML":       "spec: [",
		"unknown field": subscriptionYAML + "  someday: event.data.status == 'finished'\n",
		"other version": strings.Replace(subscriptionYAML, "v1alpha1", "v1", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, dir, nil)
				f.write("key.yaml", secretYAML)
				f.write("billing.yaml", subscriptionYAML)
				f.want(f.table(), billing)
				f.write("billing.yaml", text)
				table := f.table()
				f.want(table, billing)
				f.wantProblems(table, "billing.yaml FileUnusable")
				f.write("other.yaml", strings.ReplaceAll(subscriptionYAML, "billing-sync", "second"))
				f.want(f.table(), billing, wantRoute{"clinic-a/second", billing.url, billing.matches})
				f.remove("billing.yaml")
				table = f.table()
				f.want(table, wantRoute{"clinic-a/second", billing.url, billing.matches})
				f.wantProblems(table)
			})
		})
	}
}

// TestFolderTakesEachDocumentForItself: a bad document is reported by file and number, and those around it are used, also on
// a fresh start. What a bad one declared before stays.
func TestFolderTakesEachDocumentForItself(t *testing.T) {
	t.Parallel()
	second := wantRoute{"clinic-a/second", billing.url, billing.matches}
	good, other := secretYAML+"---\n"+subscriptionYAML, "---\n"+strings.ReplaceAll(subscriptionYAML, "billing-sync", "second")
	for name, bad := range map[string]string{
		"no YAML":       "---\nspec: [broken\n",
		"unknown field": "---\n" + strings.ReplaceAll(subscriptionYAML, "billing-sync", "third") + "  fliter: a\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, dir, nil)
				f.write("a.yaml", good+bad+other)
				table := f.table()
				f.want(table, billing, second)
				f.wantProblems(table, "a.yaml FileUnusable")
				if message := table.Problems[0].Message; !strings.HasPrefix(message, "document 3: ") {
					t.Errorf("message %q", message)
				}

				// The file is mended, and then another document breaks: what it declared goes on.
				f.write("a.yaml", good+other)
				f.wantProblems(f.table())
				f.write("a.yaml", strings.Replace(good, "/hooks", "/v2", 1)+bad+bad)
				table = f.table()
				f.want(table, wantRoute{billing.name, "https://billing.example.com/v2", billing.matches}, second)
				f.wantProblems(table, "a.yaml FileUnusable", "a.yaml FileUnusable")
				f.write("a.yaml", good)
				f.want(f.table(), billing)
			})
		})
	}
}

// TestFolderTakesATenantFromItsNamespace: a Namespace's uid is the tenant; without, its name is.
func TestFolderTakesATenantFromItsNamespace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		f.write("a.yaml", secretYAML+"---\n"+subscriptionYAML)
		tenant := func() string {
			t.Helper()
			for route := range f.table().All() {
				return route.Tenant()
			}
			t.Fatal("no route")
			return ""
		}
		if got := tenant(); got != "clinic-a" {
			t.Errorf("tenant %q without a Namespace", got)
		}
		f.write("n.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: clinic-a, uid: 1234}\nspec: {finalizers: [kubernetes]}\n")
		if got := f.table().Problems; len(got) != 1 {
			t.Errorf("a uid that is no text: %v", got)
		}
		f.write("n.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: clinic-a, uid: u-1}\nspec: {finalizers: [kubernetes]}\n")
		if got := tenant(); got != "u-1" {
			t.Errorf("tenant %q, want the Namespace's uid", got)
		}
	})
}

func TestFolderReportsWhatItRefusesAndIsReadyAllTheSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		f.write("a.yaml", secretYAML+"---\n"+subscriptionYAML)
		f.write("b.yaml", subscriptionYAML+"---\n"+secretYAML)
		f.write("c.yaml", strings.NewReplacer("billing-sync", "refused", "https", "http").Replace(subscriptionYAML))
		f.write("d.yaml", "kind: Secret\n---\n"+strings.ReplaceAll(subscriptionYAML, "billing-sync", "second"))
		f.write("e.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: clinic-a}\n")
		table := f.table()
		f.want(table, billing, wantRoute{"clinic-a/second", billing.url, billing.matches})
		f.wantProblems(table, "b.yaml Duplicate", "b.yaml Duplicate", "c.yaml HTTPNotAllowed", "d.yaml FileUnusable")
		if log := f.logged(); !strings.Contains(log, `"kinds"="Service"`) || strings.Count(log, "not usable") != 4 {
			t.Errorf("got\n%s", log)
		}
		if !table.Stale {
			t.Error("a table that lacks what d.yaml may declare is said to be complete")
		}
		f.remove("d.yaml")
		if table = f.table(); table.Stale {
			t.Error("a complete table is said to lack something")
		}
	})
}

func TestFolderFollowsLinksAsAMountedConfigMapHasThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		version := func(name, text string) {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			f.write(filepath.Join(name, "billing.yaml"), text)
		}
		link := func(target, name string) {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		f.write("key.yaml", secretYAML)
		version("..1", subscriptionYAML)
		link("..1", "..data")
		link(filepath.Join("..data", "billing.yaml"), "billing.yaml")
		f.want(f.table(), billing)
		version("..2", strings.Replace(subscriptionYAML, "/hooks", "/twice", 1))
		link("..2", "..new")
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		f.want(f.table(), wantRoute{billing.name, "https://billing.example.com/twice", billing.matches})
		if err := os.RemoveAll(filepath.Join(dir, "..2")); err != nil { // the link leads nowhere
			t.Fatal(err)
		}
		table := f.table()
		f.want(table, wantRoute{billing.name, "https://billing.example.com/twice", billing.matches})
		f.wantProblems(table, "billing.yaml FileUnusable")
	})
}

// TestFolderNeverTakesAnEditForADeletion writes and moves files as editors do, and looks at every table on the way.
func TestFolderNeverTakesAnEditForADeletion(t *testing.T) {
	t.Parallel()
	both := subscriptionYAML + "---\n" + strings.ReplaceAll(subscriptionYAML, "billing-sync", "second") + "---\n" + secretYAML
	for name, edit := range map[string]func(f *follower){
		"written slowly": func(f *follower) {
			for n := 0; n < len(both); n += len(both) / 5 {
				f.write("a.yaml", both[:n])
				pass(90 * time.Millisecond)
			}
			f.write("a.yaml", both)
		},
		"moved": func(f *follower) {
			if err := os.Rename(filepath.Join(f.dir, "a.yaml"), filepath.Join(f.dir, "b.yaml")); err != nil {
				f.t.Error(err)
			}
		},
		"removed, then there under another name": func(f *follower) {
			f.remove("a.yaml")
			pass(150 * time.Millisecond)
			f.write("b.yaml", both)
		},
		"removed, then there again": func(f *follower) {
			f.remove("a.yaml")
			pass(150 * time.Millisecond)
			f.write("a.yaml", both+"# again\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for offset := time.Duration(0); offset < pollInterval; offset += 50 * time.Millisecond { // of the poll
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					f := follow(t, dir, nil)
					f.write("a.yaml", both)
					second := wantRoute{"clinic-a/second", billing.url, billing.matches}
					f.want(f.table(), billing, second)
					pass(offset)
					edit(f)
					f.want(f.table(), billing, second)
					pass(3 * time.Second)
					for _, table := range f.delivered()[1:] {
						f.want(table, billing, second)
						f.wantProblems(table)
					}
					f.stop()
				})
			}
		})
	}
}

func TestFolderTakesAFileThatNeverSettles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		f.write("key.yaml", secretYAML)
		for range 40 {
			f.write("billing.yaml", subscriptionYAML+strings.Repeat("# again\n", len(f.delivered())+1)+time.Now().Format("# 15:04:05.000\n"))
			pass(50 * time.Millisecond)
		}
		f.want(f.delivered()[len(f.delivered())-1], billing)
	})
}

func TestFolderThatCannotBeReadKeepsTheTable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "routes")
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, nil)
		pass(3 * time.Second)
		if tables := f.delivered(); len(tables) != 0 {
			t.Fatal("a folder that does not exist made a table")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f.write("a.yaml", subscriptionYAML+"---\n"+secretYAML)
		table := f.table()
		f.want(table, billing)
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if after := f.table(); after != table {
			t.Error("a folder that vanished made another table")
		}
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
		f.write("a.yaml", strings.Replace(subscriptionYAML, "/hooks", "/v2", 1)+"---\n"+secretYAML)
		f.want(f.table(), wantRoute{billing.name, "https://billing.example.com/v2", billing.matches})
		if n := strings.Count(f.logged(), "Folder not readable"); n != 2 {
			t.Errorf("it was logged %d times, want once for each time:\n%s", n, f.logged())
		}
	})
}

func TestRestartFindsTheLastGoodTable(t *testing.T) {
	t.Parallel()
	waits := wantRoute{billing.name, "", billing.matches}
	for name, tc := range map[string]struct {
		meanwhile   func(f *follower)
		want        []wantRoute
		wantProblem []string
		wantStale   bool
	}{
		"as it was":     {func(*follower) {}, []wantRoute{billing}, nil, false},
		"deleted":       {func(f *follower) { f.remove("billing.yaml") }, nil, nil, false},
		"not accepted":  {func(f *follower) { f.write("billing.yaml", strings.Replace(subscriptionYAML, "https", "http", 1)) }, []wantRoute{waits}, []string{"billing.yaml HTTPNotAllowed"}, false},
		"Secret gone":   {func(f *follower) { f.remove("key.yaml") }, []wantRoute{waits}, []string{"billing.yaml SecretNotFound"}, false},
		"does not read": {func(f *follower) { f.write("billing.yaml", "[") }, []wantRoute{billing}, []string{"billing.yaml FileUnusable"}, true},
		"folder gone": {func(f *follower) {
			if err := os.RemoveAll(f.dir); err != nil {
				f.t.Error(err)
			}
		}, []wantRoute{billing}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lastGood := filepath.Join(t.TempDir(), "routes"), routing.NewLastGood(t.TempDir())
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, dir, lastGood)
				f.write("key.yaml", secretYAML)
				f.write("billing.yaml", subscriptionYAML)
				before := f.table()
				f.want(before, billing)
				f.stop()
				tc.meanwhile(f)
				again := follow(t, dir, lastGood)
				table := again.table()
				again.want(table, tc.want...)
				again.wantProblems(table, tc.wantProblem...)
				if table.Stale != tc.wantStale || !table.Stale && table.Revision <= before.Revision {
					t.Errorf("stale %v, revision %d after %d", table.Stale, table.Revision, before.Revision)
				}
				again.stop()
				third := follow(t, dir, lastGood) // and once more: what was kept is kept again
				third.want(third.table(), tc.want...)
			})
		})
	}
}

func TestDamagedLastGoodTableIsIgnored(t *testing.T) {
	t.Parallel()
	dir, kept := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, dir, routing.NewLastGood(kept))
		f.write("a.yaml", subscriptionYAML+"---\n"+secretYAML)
		f.want(f.table(), billing)
		f.stop()
		if err := os.WriteFile(filepath.Join(kept, "index"), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		again := follow(t, dir, routing.NewLastGood(kept))
		again.want(again.table(), billing)
		if !strings.Contains(again.logged(), "Last good routing table ignored") {
			t.Errorf("got\n%s", again.logged())
		}
	})
}

func TestTableThatCannotBeSavedIsSavedLater(t *testing.T) {
	t.Parallel()
	dir, kept := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil { // in the way
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		lastGood := routing.NewLastGood(kept)
		f := follow(t, dir, lastGood)
		f.write("a.yaml", subscriptionYAML+"---\n"+secretYAML)
		f.want(f.table(), billing)
		if err := os.Remove(kept); err != nil {
			t.Fatal(err)
		}
		pass(2 * saveAgain)
		if _, _, err := lastGood.Load(); err != nil {
			t.Errorf("not saved: %v", err)
		}
	})
}

// TestFolderNoticesChanges runs on the system's notices and the real clock.
func TestFolderNoticesChanges(t *testing.T) {
	t.Parallel()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	dir, tables := t.TempDir(), make(chan *routing.Table, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	source := New(Config{Dir: dir, Policy: routing.Policy{Catalog: catalog}, Log: logr.Discard()})
	go func() { done <- source.Run(ctx, func(table *routing.Table) { tables <- table }) }()
	wait := func(routes int) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case table := <-tables:
				if table.Len() == routes {
					return
				}
			case <-deadline:
				t.Fatalf("no table of %d routes", routes)
			}
		}
	}
	wait(0)
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(subscriptionYAML+"---\n"+secretYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	wait(1)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "routes")
	n := newNotices(dir)
	if n == nil {
		t.Skip("no notices on this system")
	}
	defer n.close()
	n.follow()
	if n.active() {
		t.Fatal("watches a folder that does not exist")
	}
	notice := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case <-n.changes():
		case <-time.After(20 * time.Second):
			t.Fatal("no notice")
		}
	}
	for range 2 { // the second is another folder of the same name
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		n.follow()
		if info, err := os.Stat(dir); err != nil || !n.active() || !os.SameFile(info, n.watched) {
			t.Fatal("does not watch the folder that has the name", err)
		}
		notice()
		if err := os.Rename(dir, fmt.Sprint(dir, time.Now().UnixNano())); err != nil {
			t.Fatal(err)
		}
	}
}
