//go:build !race

package routing

const race = false
