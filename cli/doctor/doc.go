// Package doctor looks at an installation with its user's rights, and says what is wrong, why, and which command mends it.
//
// It looks once: look reads the resources that it may read into an Installation. Each Check is a pure function of that, so a
// check needs no cluster to be tested, and what could not be read is a finding of its own and not an error. Each check is one
// file; to add one, write it and name it in checks.
//
// A finding has the level that kstatus gives the object, so that doctor, Flux and Argo CD say the same: Failed where someone
// has to change something, Waiting where the object may become ready by itself. What is not about readiness is a Warning or a
// Note.
package doctor
