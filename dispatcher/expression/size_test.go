package expression

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestProgramSize: Size is no less than what programs take, for texts that take little and for those that take most.
func TestProgramSize(t *testing.T) { // not parallel: it measures the process
	if raceEnabled {
		t.Skip("the race detector's own memory would be measured")
	}
	if _, err := Compile(Filter, "true"); err != nil { // the environments are made once
		t.Fatal(err)
	}
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for name, text := range map[string]string{
		"a comparison": "event.data.flag == 'c%d'",
		"a rule":       "event.data.status == 'finished' && event.previous.status != 'finished' && event.data.clinic == 'c%d'",
		"many terms":   "event.data.x == %d" + strings.Repeat(" || event.data.abc == 'x'", 90),
		"a long list":  "%d > 0 && [" + strings.Repeat("1,", 700) + "1] == event.data.a",
		"macros":       "%d == 0" + strings.Repeat("||[1].all(a,a>1)", 40),
		"a pattern":    "event.id.matches('a{900}b{900}%d')",
	} {
		const n = 100
		programs := make([]*Program, n)
		before := heap()
		for i := range programs {
			program, err := Compile(Filter, fmt.Sprintf(text, i))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			programs[i] = program
		}
		each, said := (heap()-before)/n, programs[n-1].Size()
		t.Logf("%s: %d bytes, Size is %d", name, each, said)
		if each > said || said > 8*each {
			t.Errorf("%s takes %d bytes, Size is %d", name, each, said)
		}
		runtime.KeepAlive(programs)
	}
	large := "0 == 0" + strings.Repeat("||[1].all(a,a>1)", 240)
	if _, err := Compile(Filter, large); err == nil || !strings.Contains(err.Error(), "bytes of memory") {
		t.Errorf("a program of many macros is taken: %v", err)
	}
}
