package doctor

import (
	"cmp"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// findPods says why pods are not ready: Kubernetes refuses or cannot place them, or their container does not run.
func findPods(in *Installation) []Finding {
	var all []Finding
	for i := range in.Deployments {
		d := &in.Deployments[i]
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				all = append(all, Finding{
					Level: Failed, Object: object("Deployment", d.Namespace, d.Name), Problem: "Kubernetes refuses its pods", Why: c.Message,
					Mend: fmt.Sprintf("kubectl -n %s describe replicasets -l app.kubernetes.io/name=eventflow", d.Namespace),
				})
			}
		}
	}
	for i := range in.Pods {
		pod := &in.Pods[i]
		level, problem, why := judgePod(pod)
		if problem == "" {
			continue
		}
		mend := fmt.Sprintf("kubectl -n %s describe pod %s", pod.Namespace, pod.Name)
		if strings.Contains(problem, "ends again") {
			mend = fmt.Sprintf("kubectl -n %s logs %s --previous", pod.Namespace, pod.Name)
		}
		all = append(all, Finding{Level: level, Object: object("Pod", pod.Namespace, pod.Name), Problem: problem, Why: why, Mend: mend})
	}
	return all
}

// judgePod returns what is wrong with a pod; nothing if it is ready, or on its way out.
func judgePod(pod *corev1.Pod) (level Level, problem, why string) {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded {
		return "", "", ""
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return Waiting, "no node takes it: " + cmp.Or(c.Reason, "Pending"), c.Message
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		waiting, last := c.State.Waiting, c.LastTerminationState.Terminated
		switch {
		case waiting != nil && (waiting.Reason == "ErrImagePull" || waiting.Reason == "ImagePullBackOff" || waiting.Reason == "InvalidImageName"):
			return Failed, "its image cannot be pulled: " + c.Image, waiting.Message
		case waiting != nil && strings.HasPrefix(waiting.Reason, "CreateContainer"):
			return Failed, "its container cannot be made: " + waiting.Reason, waiting.Message
		case waiting != nil && waiting.Reason == "CrashLoopBackOff":
			return Failed, fmt.Sprintf("its container ends again and again, %d times by now", c.RestartCount), ended(last)
		case c.Ready && last != nil && last.Reason == "OOMKilled":
			return Warning, "its container was ended because its memory was used up", "see spec.resources.limits.memory of the WebhookDispatcher"
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse {
			return Waiting, "it is not ready: " + cmp.Or(c.Reason, string(pod.Status.Phase)), c.Message
		}
	}
	return "", "", ""
}

func ended(last *corev1.ContainerStateTerminated) string {
	if last == nil {
		return ""
	}
	return fmt.Sprintf("it ended with code %d, %s", last.ExitCode, cmp.Or(last.Reason, "no reason"))
}
