"""What a configuration will cost before anything is built: parameters, FLOPs and bytes.

Formulas over the configuration alone; nothing is allocated. The tests hold each to a measurement on
a real network.
"""

from tercet.plan.plan import Plan, Row, plan

__all__ = ["Plan", "Row", "plan"]
