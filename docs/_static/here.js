// the sidebar shows where one is
document.addEventListener('DOMContentLoaded', () => {
  const at = document.querySelector('.sidebar-tree .current-page'), box = document.querySelector('.sidebar-scroll')
  if (at && box) box.scrollBy({ top: at.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight/2, behavior: 'instant' })
})
