package postgres_test

import (
	"slices"
	"strings"
	"time"
)

// slack is what bounds of time are multiplied with where tests share the machine with others.
const slack = 4

func quantiles(took []time.Duration) (p50, p99 time.Duration) {
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func replaceAll(text string, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(text)
}
