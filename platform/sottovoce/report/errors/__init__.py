"""The page of errors: each scored utterance with its alignment and its sound, worst first."""
