"""What a run's own figures say about it: what went wrong or could go better, and which settings to change."""

from sottovoce.train.diagnosis.diagnose import diagnose
from sottovoce.train.diagnosis.finding import Finding, SettingChange

__all__ = ["Finding", "SettingChange", "diagnose"]
