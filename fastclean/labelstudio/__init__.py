"Label Studio: projects from data sets, and a backend that labels along and corrects labels."
