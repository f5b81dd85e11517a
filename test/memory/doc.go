// Package memory holds a dispatcher process to its memory limit, under publishes that ended one before.
package memory
