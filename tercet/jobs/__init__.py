"""One function a job: data, objective, model and settings put together. The verbs live here."""
