"Callbacks that train past wrong labels, and that record how the items are learnt."
