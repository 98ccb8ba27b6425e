"""Evaluators on a Ray cluster: the same evaluators as on one machine, in actors on the nodes.

The scheduler (:mod:`~evaluators.ray_cluster.evaluator`) never imports Ray. A process of its own, the driver
(:mod:`~evaluators.ray_cluster.driver`), is the member of the cluster, since Ray ends a driver that loses the cluster. It
shares portions of a batch out over actors (:mod:`~evaluators.ray_cluster.pool`), each of which
(:mod:`~evaluators.ray_cluster.actor`) has the evaluator in a process again, so that a text costs no more there than here.
"""
