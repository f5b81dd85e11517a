package expression

import (
	"strings"
	"testing"
	"time"
)

// benchData is an event of about 1 KB, as a clinic's EHR sends it.
var benchData = `{"resourceType":"appointment","resourceId":"apt_8f3a2c","action":"created","tenantId":"org_def456","id":"apt_8f3a2c",
"status":"booked","start":"2026-01-20T15:30:00Z","end":"2026-01-20T16:00:00Z","timeZone":"America/New_York","duration":30,
"patientId":"pt_abc123","patientPhone":"+15550111","patientEmail":"pat@example.com","practitionerId":"pr_77",
"location":{"id":"loc_3","name":"Main Street Clinic","address":{"line":"12 Main Street","city":"Springfield","zip":"01101"}},
"reason":{"coding":[{"system":"http://snomed.info/sct","code":"185349003","display":"Encounter for check up"},
{"system":"http://loinc.org","code":"11429-6","display":"Prior visit"}],"text":"annual check up"},
"participants":[{"id":"pt_abc123","role":"patient","status":"accepted"},{"id":"pr_77","role":"practitioner","status":"accepted"}],
"note":"` + strings.Repeat("please bring your insurance card. ", 6) + `"}`

var benchFilters = map[string]string{
	"comparison": "event.data.status == 'booked'",
	"realistic": "event.data.status in ['booked', 'arrived'] && event.data.duration >= 15 && " +
		"event.data.location.address.city == 'Springfield' && event.data.patientPhone.startsWith('+1') && event.data.absent != true",
	"list": "event.data.reason.coding.exists(c, c.system == 'http://loinc.org' && c.code == '11429-6')",
	"time": "timestamp(event.data.start) - event.timestamp > duration('24h')",
}

func BenchmarkFilter(b *testing.B) {
	for name, text := range benchFilters {
		b.Run(name, func(b *testing.B) {
			program := mustCompile(b, Filter, text)
			variables := filterVariables(benchData)
			if ok, err := program.Bool(variables); !ok || err != nil {
				b.Fatalf("got %t, %v", ok, err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, _ := program.Bool(variables); !ok {
					b.Fatal("false")
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(benchData)))
	for b.Loop() {
		if _, err := NewDocument([]byte(benchData)).read(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(Filter, benchFilters["realistic"]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransform(b *testing.B) {
	program := mustCompile(b, TransformBody,
		"{'To': event.data.patientPhone, 'From': '+15550100', 'Body': 'Tomorrow at ' + formatTime(event.data.start, event.data.timeZone, '3:04 PM')}")
	variables := filterVariables(benchData)
	b.ReportAllocs()
	for b.Loop() {
		value, err := program.Value(variables)
		if err == nil {
			_, err = value.Form()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// TestFiltersDoNotAllocate: in the common case, a filter takes no memory.
func TestFiltersDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's pools drop what they hold")
	}
	for _, name := range []string{"comparison", "realistic"} {
		program := mustCompile(t, Filter, benchFilters[name])
		variables := filterVariables(benchData)
		variables.Now = time.Unix(0, 0)
		if got := testing.AllocsPerRun(200, func() { _, _ = program.Bool(variables) }); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}
