"""Names of the policies, for those who need no more: a configuration is read without loading what they compute with."""

POLICY_NAMES = (
    "npas",
    "paper",
    "random",
    "local",
    "evolution",
    "optuna-tpe",
    "optuna-nsga2",
    "optuna-gp",
    "tune",
)
